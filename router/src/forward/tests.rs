//! The forwarder against a small TLS server.
