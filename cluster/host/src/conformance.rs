//! One test body for the real and the simulated implementations of the seam.
