//! The static binaries for OpenWrt, as `./dev musl` makes them: how large they are, and that
//! they work. The aarch64 one runs under Debian's qemu-user-static, which has no netlink: that
//! is what a kernel without nfnetlink looks like, and one clear line must come of it while
//! everything else goes on. The x86_64 one runs as it is.

#[path = "musl/elf.rs"]
mod elf;
#[path = "musl/router.rs"]
mod router;
#[path = "musl/runs.rs"]
mod runs;
#[path = "musl/size.rs"]
mod size;
