//! Images from the desktops that have them, when no registry can be reached.

use super::{HEAD_LIMIT, IMAGES, request, rest};
use crate::agent::{Agent, ImagePeers};
use crate::pods::ByteStream;
use crate::wire::{read_frame, write_frame};
use futures::StreamExt;
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::{Member, Membership};
use gaggle_gossip::transport::{Stream, Transport};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

/// Images sent at once by one desktop: its disk and its uplink are the limit; others are asked meanwhile.
const SENT_AT_ONCE: usize = 3;
/// How long a desktop may take to begin sending.
const HEAD_WITHIN: Duration = Duration::from_secs(20);

type Head = Result<(), String>;

/// The other desktops as a source of images.
pub struct FlockImages {
    pub transport: Transport,
    pub membership: Membership,
}

impl FlockImages {
    /// Whoever says that it has the image; then the others, since a list may be cut short or have changed.
    fn holders(&self, image: &str) -> (Vec<PeerId>, Vec<PeerId>) {
        let members = self.membership.members().borrow().clone();
        let me = self.transport.local();
        let reached = members.iter().filter(|member| member.peer != me && member.connected);
        let (holders, others): (Vec<_>, Vec<_>) =
            reached.partition(|member| member.images.iter().any(|held| held == image));
        let peers = |members: Vec<&Member>| members.into_iter().map(|member| member.peer).collect();
        (peers(holders), peers(others))
    }

    async fn ask(&self, peer: PeerId, image: &str) -> Result<ByteStream, String> {
        let asked = async {
            let mut stream = self.transport.open(peer, IMAGES).await.map_err(std::io::Error::other)?;
            write_frame(&mut stream, &image).await?;
            let head: Head = read_frame(&mut stream, HEAD_LIMIT).await?;
            Ok::<_, std::io::Error>((head, stream))
        };
        match tokio::time::timeout(HEAD_WITHIN, asked).await {
            Ok(Ok((Ok(()), stream))) => Ok(rest(stream)),
            Ok(Ok((Err(why), _))) => Err(why),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", HEAD_WITHIN.as_secs())),
        }
    }
}

#[async_trait::async_trait]
impl ImagePeers for FlockImages {
    async fn fetch(&self, image: &str) -> Result<Option<ByteStream>, String> {
        let mut problems = Vec::new();
        let (holders, others) = self.holders(image);
        let said = holders.len();
        for (place, peer) in holders.into_iter().chain(others).enumerate() {
            match self.ask(peer, image).await {
                Ok(bytes) => {
                    tracing::info!(%peer, image, "fetching an image from another desktop");
                    return Ok(Some(bytes));
                }
                Err(why) if place < said => problems.push(format!("{peer}: {why}")),
                // It never said that it has the image.
                Err(_) => {}
            }
        }
        if problems.is_empty() { Ok(None) } else { Err(problems.join("; ")) }
    }
}

/// Sends images that this desktop has to those that ask, until the transport ends.
pub async fn serve_images(transport: Transport, agent: Agent) {
    let mut acceptor = match transport.accept(IMAGES, 16) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "images cannot be served to other desktops"),
    };
    let places = Arc::new(Semaphore::new(SENT_AT_ONCE));
    while let Some((peer, stream)) = acceptor.next().await {
        let (agent, places) = (agent.clone(), places.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_one(stream, &agent, &places).await {
                tracing::debug!(%peer, %error, "an image was not sent whole");
            }
        });
    }
}

async fn serve_one(mut stream: Stream, agent: &Agent, places: &Semaphore) -> std::io::Result<()> {
    let image: String = request(&mut stream).await?;
    let Ok(_place) = places.try_acquire() else {
        return write_frame(&mut stream, &Head::Err("busy sending images to others".into())).await;
    };
    let mut bytes = agent.export_image(&image);
    // The first bytes say whether the engine has it.
    match bytes.next().await {
        Some(Ok(chunk)) => {
            write_frame(&mut stream, &Head::Ok(())).await?;
            stream.write_all(&chunk).await?;
        }
        Some(Err(error)) => return write_frame(&mut stream, &Head::Err(error.to_string())).await,
        None => return write_frame(&mut stream, &Head::Err("the engine sent nothing".into())).await,
    }
    while let Some(chunk) = bytes.next().await {
        stream.write_all(&chunk?).await?;
    }
    stream.shutdown().await
}
