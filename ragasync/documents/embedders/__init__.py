"""
Embedders that call a service.

    openai_http.py    HttpService: requests, redirects and bounded replies over HTTP
"""
