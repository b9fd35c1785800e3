"""Again or not: retry policies, and what an error says about another attempt."""
