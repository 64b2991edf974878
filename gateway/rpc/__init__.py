"""gRPC as a client speaks it: calls, and the channels that they are made on."""
