"""HTTP/2 on the event loop, as far as gRPC needs it, for both its sides (docs/decisions/0011)."""
