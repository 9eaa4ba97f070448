//! From a plan to fragments on nodes: which node runs which files, frozen for the life of one query.

pub mod journey;
pub mod leaf;
pub mod placement;
pub mod route;
pub mod transport;
