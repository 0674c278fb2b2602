//! The pipeline with a simulated clock.
