//! How Linux tells of sockets and processes, without privilege where that is possible.
//!
//! `diag`: all sockets with their inodes (anybody) and each socket's end with its byte totals
//! (`CAP_NET_ADMIN`). `procfs`: processes, which file runs, who holds which socket
//! (other users' only as root). `connector`: each start, exec and end of a process (root, in
//! the machine's own network namespace). `ebpf`: all of that as it happens, with owners, in
//! every network namespace (root, BTF).

pub mod connector;
pub mod containers;
pub mod diag;
pub mod ebpf;
pub mod privileges;
pub mod procfs;
pub mod routes;
