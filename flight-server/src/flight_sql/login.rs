//! The answer to a handshake: the token of a login, in the header that drivers read and as the payload.

use super::status;
use arrow_flight::HandshakeResponse;
use bowshot_engine::port::flight::Messages;
use prost::bytes::Bytes;
use tonic::{Response, Status};

/// Tells a client its token.
///
/// # Errors
/// When the token cannot travel in a header.
pub fn answer(token: String) -> Result<Response<Messages<HandshakeResponse>>, Status> {
    let bearer = format!("Bearer {token}").parse().map_err(|error| status::malformed("token", error))?;
    let answer = HandshakeResponse { protocol_version: 0, payload: Bytes::from(token.into_bytes()) };
    let answers: Messages<HandshakeResponse> = Box::pin(futures::stream::once(std::future::ready(Ok(answer))));
    let mut response = Response::new(answers);
    response.metadata_mut().insert("authorization", bearer);
    Ok(response)
}
