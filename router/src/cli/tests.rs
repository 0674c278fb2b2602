//! The command line, end to end in this process.
