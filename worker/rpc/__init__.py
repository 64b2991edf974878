"""gRPC as a server speaks it."""
