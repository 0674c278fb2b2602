//! How Linux tells of sockets and processes, without privilege where that is possible.
//!
//! `diag`: all sockets with their inodes (anybody) and each socket's end with its byte totals
//! (`CAP_NET_ADMIN`). `procfs`: processes, which file runs, who holds which socket
//! (other users' only as root). `connector`: each start, exec and end of a process (root, in
//! the machine's own network namespace).

pub mod connector;
pub mod diag;
pub mod ebpf;
pub mod procfs;
