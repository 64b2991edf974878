"""The gRPC services, one process per family. May import trestle; never gateway."""
