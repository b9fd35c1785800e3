"""
Embedders: from texts to vectors.

    hashing.py            Embedder (the protocol), HashingEmbedder, the default
    wordllama.py          WordLlamaEmbedder, a small model that runs locally
    openai.py             OpenAIEmbedder: batches of texts to a service with OpenAI's API
    openai_client.py      one request: by the user's client, or over HTTP without one
    openai_http.py        HttpService: requests, redirects and bounded replies over HTTP
    ratelimit_headers.py  HeaderRateLimiter: slows down as a service's headers ask
    openai_responses.py   checks a response and decodes its vectors
    dimension.py          Dimension: all vectors of an embedder have the same length
    openai_errors.py      errors of a service, with their text cut and masked

An embedder is called with a list of texts and returns as many vectors. `openai` checks and weighs
the texts, `openai_client` sends them and `openai_responses` turns the response into vectors. A bad
response is raised as one of `openai_errors`.
"""
