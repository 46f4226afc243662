"""gRPC as this mesh speaks it: one server, one channel, one file per interceptor."""
