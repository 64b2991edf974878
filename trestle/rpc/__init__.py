"""gRPC as a server speaks it, for both services."""
