//! The last words to a caller that gets nowhere: its calls are answered with the reason, and nothing that it sent is looked at.

use crate::limits;
use h2::server::Connection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tonic::Status;

/// Answers the calls that come over a stream with `status`, then closes it. Whoever calls bounds its time.
pub async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &Status) {
    answer(&mut stream, status).await;
    // Closed while the caller still sends, the connection would be reset, and the answer lost on its way.
    if stream.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut stream.take(limits::REFUSED_BYTES_MAX), &mut tokio::io::sink()).await;
    }
}

/// The farewell of the protocol (GOAWAY) comes a while after the answer: a client that finds both at once may take the farewell first, and forget
/// its call.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), status: &Status) {
    let connection = h2::server::Builder::new()
        .max_concurrent_streams(1)
        .max_header_list_size(limits::REFUSED_HEADER_BYTES_MAX)
        .handshake::<_, bytes::Bytes>(stream)
        .await;
    // Whoever speaks something else, or is gone, can be told nothing.
    let Ok(mut connection) = connection else { return };
    if answer_next(&mut connection, status).await.is_some()
        && tokio::time::timeout(limits::REFUSED_GRACE, async { while answer_next(&mut connection, status).await.is_some() {} })
            .await
            .is_err()
    {
        connection.graceful_shutdown();
        while answer_next(&mut connection, status).await.is_some() {}
    }
}

/// Answers the next call; nothing if there is none any more.
async fn answer_next<S: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<S, bytes::Bytes>, status: &Status) -> Option<()> {
    let (_, mut answer) = connection.accept().await?.ok()?;
    answer.send_response(status.clone().into_http(), true).ok().map(drop)
}
