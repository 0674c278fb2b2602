//! The package's own files on a root like a router's: the init script under busybox's shell,
//! the firewall's drop-in with the real nft, the program's behaviour where something is
//! missing, and the way out.

mod degraded;
mod firewall;
mod root;
mod service;
