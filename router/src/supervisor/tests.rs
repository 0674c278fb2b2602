//! Whole routers in one process.
