//! Intent documents between desktops: the anti-entropy that makes every copy the same.

use super::INTENT;
use super::rpc::{Rpc, serve};
use gaggle_gossip::PeerId;
use gaggle_gossip::intent::{Intent, Peers, Syncer};
use gaggle_gossip::transport::Transport;
use std::str::FromStr;
use std::time::Duration;

/// The largest frame of the exchange, with room around the documents' own limit of a mebibyte a frame.
const FRAME_LIMIT: usize = 8 << 20;
const DEADLINE: Duration = Duration::from_secs(10);
/// How often copies are compared although nothing says that they differ.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// The desktops that are connected now, as the exchange reaches them.
pub(super) struct ConnectedPeers {
    transport: Transport,
    rpc: Rpc,
}

impl ConnectedPeers {
    pub fn new(transport: Transport) -> Self {
        Self { rpc: Rpc::new(transport.clone(), INTENT, FRAME_LIMIT), transport }
    }
}

#[async_trait::async_trait]
impl Peers for ConnectedPeers {
    fn connected(&self) -> Vec<String> {
        self.transport.connected().borrow().keys().map(PeerId::to_string).collect()
    }

    async fn call(&self, peer: &str, request: Vec<u8>) -> Result<Vec<u8>, String> {
        let peer = PeerId::from_str(peer).map_err(|_| format!("{peer} is not a peer id"))?;
        self.rpc.call(peer, &request, DEADLINE).await.map_err(|error| error.to_string())
    }
}

/// Answers and asks until the transport ends.
pub async fn sync_forever(transport: Transport, intent: Intent) {
    let acceptor = match transport.accept(INTENT, 64) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "intent documents cannot be exchanged"),
    };
    let answering = serve(acceptor, FRAME_LIMIT, {
        let intent = intent.clone();
        move |_, request| {
            let intent = intent.clone();
            async move { intent.answer(&request).await }
        }
    });
    let peers = std::sync::Arc::new(ConnectedPeers::new(transport));
    tokio::join!(answering, Syncer::run(intent, peers, COMPARE_EVERY));
}
