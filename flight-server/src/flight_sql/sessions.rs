//! Which session of the engine a call belongs to: that of its login, else that of its connection.

use crate::auth::{LoginId, Principal};
use crate::connection::ConnectionId;
use crate::limits;
use bowshot_engine::{Coordinator, Session};
use moka::sync::Cache;

/// A session's owner: the user, and what tells this client from others of the same user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    user: String,
    client: Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    Login(LoginId),
    Connection(ConnectionId),
}

/// The open sessions.
pub struct Sessions {
    coordinator: Coordinator,
    open: Cache<Owner, Session>,
}

impl Sessions {
    /// No session yet.
    pub fn new(coordinator: Coordinator) -> Self {
        Self { coordinator, open: Cache::builder().max_capacity(limits::SESSIONS_MAX).time_to_idle(limits::SESSION_IDLE).build() }
    }

    /// The caller's session, opened if it has none.
    pub fn of(&self, principal: &Principal, connection: Option<ConnectionId>) -> Session {
        self.open.get_with(owner(principal, connection), || self.coordinator.open_session(&principal.user))
    }

    /// Ends the caller's session: its settings and views are gone.
    pub fn close(&self, principal: &Principal, connection: Option<ConnectionId>) {
        self.open.invalidate(&owner(principal, connection));
    }

    /// Ends what belonged to a connection that is gone.
    pub fn connection_closed(&self, connection: ConnectionId) {
        let owners: Vec<_> =
            self.open.iter().filter(|(owner, _)| owner.client == Client::Connection(connection)).map(|(owner, _)| owner).collect();
        for owner in owners {
            self.open.invalidate(owner.as_ref());
        }
    }
}

fn owner(principal: &Principal, connection: Option<ConnectionId>) -> Owner {
    let client = match principal.login {
        Some(login) => Client::Login(login),
        // Numbers start at 1, so 0 stands for a transport without numbers.
        None => Client::Connection(connection.unwrap_or(ConnectionId(0))),
    };
    Owner { user: principal.user.clone(), client }
}
