//! A connection to a server: login, statements, and the actions the shell needs.

use crate::error::{Error, Result};
use crate::flight_sql::{CANCEL_OWN_QUERY, QUERY_PROGRESS, QUERY_SUMMARY};
use crate::limits;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{Action, FlightEndpoint, FlightInfo, HandshakeRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bowshot_engine::QuerySummary;
use futures::{StreamExt, TryStreamExt};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// A server that does not accept a connection within this time is taken as not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for figures: they are nice to have, and must not hold the prompt up.
const FIGURES_TIMEOUT: Duration = Duration::from_secs(2);

/// Where and as whom to connect.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    pub url: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    /// File of the authority's certificate for TLS.
    pub authority: Option<PathBuf>,
}

/// A connection, logged in. Clones share it.
#[derive(Clone)]
pub struct Client {
    flight: FlightSqlServiceClient<Channel>,
    options: ConnectOptions,
}

/// A statement that runs; dropping it cancels the query.
pub struct RunningQuery {
    /// As the server names it; nothing for metadata.
    pub query_id: Option<String>,
    pub schema: SchemaRef,
    client: Client,
    /// Those of the endpoint that is read now.
    batches: Option<FlightRecordBatchStream>,
    /// Those after it.
    endpoints: VecDeque<FlightEndpoint>,
}

impl RunningQuery {
    /// The next rows, or nothing at the end.
    ///
    /// # Errors
    /// What the server reports, or a lost connection.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batches) = &mut self.batches
                && let Some(batch) = batches.next().await
            {
                return Ok(Some(batch?));
            }
            match self.endpoints.pop_front() {
                Some(endpoint) => self.batches = Some(self.client.read(endpoint).await?),
                None => return Ok(None),
            }
        }
    }

    /// All rows.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn all(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }
}

impl Client {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's refusal.
    pub async fn connect(options: &ConnectOptions) -> Result<Self> {
        let mut client = Self { flight: connection(options).await?, options: options.clone() };
        match (&options.token, &options.user) {
            (Some(token), _) => client.flight.set_token(token.clone()),
            (None, Some(user)) => {
                let password = options.password.as_deref().unwrap_or_default();
                client.log_in(user, password).await?;
            }
            (None, None) => {}
        }
        Ok(client)
    }

    /// The library's own handshake wraps the server's words in its own, so the call is made here.
    async fn log_in(&mut self, user: &str, password: &str) -> Result<()> {
        let hello = HandshakeRequest::default();
        let mut request = tonic::Request::new(futures::stream::iter([hello]));
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        let header = format!("Basic {credentials}").parse().map_err(|_| Error::config("the user name and password cannot be sent"))?;
        request.metadata_mut().insert("authorization", header);
        let response = self.flight.inner_mut().handshake(request).await?;
        let token = response
            .metadata()
            .get("authorization")
            .and_then(|header| header.to_str().ok())
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or_else(|| Error::config("the server accepted the login, but sent no token"))?;
        self.flight.set_token(token.to_string());
        Ok(())
    }

    /// Starts a statement.
    ///
    /// # Errors
    /// What the server says about it.
    pub async fn start(&mut self, sql: &str) -> Result<RunningQuery> {
        let info = self.flight.execute(sql.to_string(), None).await?;
        self.fetch(info).await
    }

    /// The tables that a session sees: catalog, schema, name and type of each.
    ///
    /// # Errors
    /// What the server says.
    pub async fn tables(&mut self) -> Result<RunningQuery> {
        let info = self.flight.get_tables(CommandGetTables::default()).await?;
        self.fetch(info).await
    }

    /// The plan text of an EXPLAIN statement.
    ///
    /// # Errors
    /// What the server says.
    pub async fn explain(&mut self, sql: &str) -> Result<String> {
        let batches = self.start(sql).await?.all().await?;
        let mut text = String::new();
        for batch in batches {
            let last = batch.num_columns().checked_sub(1).map(|last| Arc::clone(batch.column(last)));
            let Some(column) = last else { continue };
            let options = FormatOptions::default();
            let formatter =
                ArrayFormatter::try_new(&column, &options).map_err(|error| Error::Format { format: "text", reason: error.to_string() })?;
            for row in 0..batch.num_rows() {
                text.push_str(&formatter.value(row).to_string());
                text.push('\n');
            }
        }
        Ok(text)
    }

    /// Cancels a query of this user by its whole id.
    ///
    /// # Errors
    /// What the server says: there is none, it is somebody else's, or it has ended.
    pub async fn cancel_query(&mut self, query_id: &str) -> Result<()> {
        let mut answer = self.flight.do_action(Action::new(CANCEL_OWN_QUERY, query_id.as_bytes().to_vec())).await?;
        // Nothing comes; the end of the stream says that it is done.
        while answer.try_next().await?.is_some() {}
        Ok(())
    }

    /// The final figures of a query, if the server still has them.
    pub async fn summary(&mut self, query_id: &str) -> Option<QuerySummary> {
        self.figures(QUERY_SUMMARY, query_id).await
    }

    /// The figures of a query so far.
    pub async fn progress(&mut self, query_id: &str) -> Option<QuerySummary> {
        self.figures(QUERY_PROGRESS, query_id).await
    }

    async fn figures(&mut self, action: &str, query_id: &str) -> Option<QuerySummary> {
        let asked = async {
            let action = Action::new(action, query_id.as_bytes().to_vec());
            let mut answer = self.flight.do_action(action).await.ok()?;
            let body = answer.try_next().await.ok()??.body;
            serde_json::from_slice(&body).ok()
        };
        tokio::time::timeout(FIGURES_TIMEOUT, asked).await.ok().flatten()
    }

    async fn fetch(&mut self, info: FlightInfo) -> Result<RunningQuery> {
        let query_id = std::str::from_utf8(&info.app_metadata).ok().filter(|id| !id.is_empty()).map(str::to_string);
        let schema = info.clone().try_decode_schema().map_err(|error| Error::Server {
            code: tonic::Code::Internal,
            message: format!("the server's answer has no readable schema: {error}"),
        })?;
        let mut endpoints = VecDeque::from(info.endpoint);
        // Errors of the statement are told when it is started.
        let batches = match endpoints.pop_front() {
            Some(endpoint) => Some(self.read(endpoint).await?),
            None => None,
        };
        Ok(RunningQuery { query_id, schema: Arc::new(schema), client: self.clone(), batches, endpoints })
    }

    /// The rows of an endpoint, from the worker that has them if it can be reached.
    async fn read(&mut self, endpoint: FlightEndpoint) -> Result<FlightRecordBatchStream> {
        let ticket = endpoint.ticket.unwrap_or_default();
        for location in endpoint.location.iter().filter(|location| !location.uri.starts_with("arrow-flight-reuse-connection:")) {
            let options = ConnectOptions { url: location.uri.clone(), ..self.options.clone() };
            let Ok(mut worker) = connection(&options).await else { continue };
            if let Some(token) = self.flight.token() {
                worker.set_token(token.clone());
            }
            return Ok(worker.do_get(ticket).await?);
        }
        Ok(self.flight.do_get(ticket).await?)
    }
}

async fn connection(options: &ConnectOptions) -> Result<FlightSqlServiceClient<Channel>> {
    let unreachable = |error: tonic::transport::Error| Error::Unreachable { url: options.url.clone(), reason: innermost(&error) };
    let channel = endpoint(options)?.connect().await.map_err(unreachable)?;
    let service = FlightServiceClient::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
    Ok(FlightSqlServiceClient::new_from_inner(service))
}

fn endpoint(options: &ConnectOptions) -> Result<Endpoint> {
    let wrong = |reason: &str| Error::config(format!("the address '{}' cannot be used: {reason}", options.url));
    let (scheme, rest) = options.url.split_once("://").ok_or_else(|| wrong("write grpc://HOST:PORT or grpc+tls://HOST:PORT"))?;
    let encrypted = match scheme {
        "grpc" | "grpc+tcp" | "http" => false,
        "grpc+tls" | "grpcs" | "https" => true,
        _ => return Err(wrong("write grpc://HOST:PORT or grpc+tls://HOST:PORT")),
    };
    let scheme = if encrypted { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{rest}"))
        .map_err(|error| wrong(&error.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .tcp_nodelay(true);
    if !encrypted {
        return Ok(endpoint);
    }
    let mut tls = ClientTlsConfig::new();
    if let Some(file) = &options.authority {
        let pem = std::fs::read(file).map_err(|source| Error::file("read", file, source))?;
        tls = tls.ca_certificate(Certificate::from_pem(pem));
    }
    endpoint.tls_config(tls).map_err(|error| wrong(&error.to_string()))
}

/// The last cause in a chain: "transport error" alone helps nobody.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
