//! `bucket-server PORT FOLDER KEY SECRET`: the folders below FOLDER as S3 buckets on loopback, for tests of tables in buckets.

#![forbid(unsafe_code)]

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, folder, key, secret] = arguments.as_slice() else {
        return Err("usage: bucket-server PORT FOLDER KEY SECRET".into());
    };
    let files = FileSystem::new(folder).map_err(|error| format!("{folder} cannot be served: {error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(key.as_str(), secret.as_str()));
    let service = builder.build();
    let listener = TcpListener::bind(("127.0.0.1", port.parse::<u16>()?)).await?;
    println!("serving {folder} at http://{}", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            // A client that goes away in the middle of a request is no failure of the server.
            let _ = http.serve_connection(TokioIo::new(connection), service).await;
        });
    }
}
