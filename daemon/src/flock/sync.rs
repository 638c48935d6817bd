//! Intent documents between desktops: the anti-entropy that makes every copy the same.

use super::INTENT;
use super::rpc::{Rpc, serve};
use gaggle_gossip::PeerId;
use gaggle_gossip::intent::{Intent, Keeper, MAX_MESSAGE_BYTES, Peers, Syncer};
use gaggle_gossip::transport::{ConnectedPeers as ConnectedNow, Transport};
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// The largest frame of the exchange is the documents' own.
const FRAME_LIMIT: usize = MAX_MESSAGE_BYTES;
const DEADLINE: Duration = Duration::from_secs(10);
/// How often copies are compared although nothing says that they differ.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// The desktops that are connected now, as the exchange reaches them.
struct ConnectedPeers {
    transport: Transport,
    rpc: Rpc,
    changes: Mutex<watch::Receiver<ConnectedNow>>,
}

impl ConnectedPeers {
    fn new(transport: Transport) -> Self {
        let changes = Mutex::new(transport.connected());
        Self { rpc: Rpc::new(transport.clone(), INTENT, FRAME_LIMIT), transport, changes }
    }
}

#[async_trait::async_trait]
impl Peers for ConnectedPeers {
    fn connected(&self) -> Vec<String> {
        self.transport.connected().borrow().keys().map(PeerId::to_string).collect()
    }

    async fn changed(&self) {
        if self.changes.lock().await.changed().await.is_err() {
            // The transport ended, and this exchange with it.
            std::future::pending().await
        }
        self.rpc.forget_all_but(|peer| self.transport.connected().borrow().contains_key(peer));
    }

    async fn call(&self, peer: &str, request: Vec<u8>) -> Result<Vec<u8>, String> {
        let peer = PeerId::from_str(peer).map_err(|_| format!("{peer} is not a peer id"))?;
        self.rpc.call(peer, request, DEADLINE).await.map_err(|error| error.to_string())
    }
}

/// The exchange: a keeper for edits that no quorum can order now, and the loop to run until the transport ends.
pub fn exchange(transport: Transport, intent: Intent) -> (Keeper, impl Future<Output = ()> + Send) {
    let peers = Arc::new(ConnectedPeers::new(transport.clone()));
    let (keeper, syncer) = Syncer::new(intent.clone(), peers, COMPARE_EVERY);
    let run = async move {
        let acceptor = match transport.accept(INTENT, 64) {
            Ok(acceptor) => acceptor,
            Err(error) => return tracing::error!(%error, "intent documents cannot be exchanged"),
        };
        let answering = serve(acceptor, FRAME_LIMIT, move |_, request| {
            let intent = intent.clone();
            async move { intent.answer(&request).await }
        });
        // The comparing never ends by itself; without a transport there is nothing to compare with.
        tokio::select! {
            () = answering => {}
            () = syncer.run() => {}
        }
    };
    (keeper, run)
}
