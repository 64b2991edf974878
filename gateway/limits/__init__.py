"""How much a key and its account may use: admitted before a worker is asked, settled with what it came to."""
