//! The Flight SQL service. The life of a ticket:
//!
//! 1. A client asks for a [`FlightInfo`](arrow_flight::FlightInfo) of a statement ([`service`]); the caller is
//!    authenticated and its session found ([`sessions`]).
//! 2. The statement is planned and started ([`statements`]); a command runs to its end here, exactly once, because some
//!    clients never fetch the result of one.
//! 3. The running query is noted under its id ([`results`]), and a ticket is signed for it ([`ticket`]): it names query,
//!    user and expiry, and is worth nothing to anyone else.
//! 4. The client trades the ticket for the stream, once ([`result_stream`]); the schema is the one promised in step 1. A large result may wait
//!    in parts on the workers ([`parts`]): then there is a ticket for each, good at its worker ([`worker_endpoint`]) and here.
//! 5. Dropping the stream, or a cancel by id, ends the query everywhere.
//! 6. The query's figures stay readable for a while ([`actions`]), for the shell's footer.
//!
//! `FlightService` is implemented directly over arrow-flight's `Command`: its blanket implementation for
//! `FlightSqlService` leaves out GetSchema, PollFlightInfo and the session options, and would have each metadata command
//! written twice.

mod actions;
mod client_rows;
mod column_metadata;
mod ingest;
mod keys;
mod login;
mod metadata;
mod parts;
mod polls;
mod prepared;
mod result_stream;
mod results;
mod service;
mod session_options;
mod sessions;
mod sql_info;
mod statements;
mod status;
mod ticket;
mod type_info;
mod worker_endpoint;

pub use actions::{CANCEL_OWN_QUERY, QUERY_PROGRESS, QUERY_SUMMARY};
pub use service::FlightSql;
pub use worker_endpoint::WorkerEndpoint;
