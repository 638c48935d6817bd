//! How gossip does in flocks of different sizes, up to a thousand nodes, in virtual time.
//!
//! `cargo run -p gaggle-gossip --features simulation --example thousand -- [NODES ...]`. Nine hundred and more nodes take some
//! two gigabytes and ten minutes.

use gaggle_gossip::membership::simulation::{Report, simulate};

const SIZES: [usize; 5] = [3, 9, 60, 300, 1000];
const SEED: u64 = 1;

fn main() -> anyhow::Result<()> {
    let mut sizes = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<Vec<usize>, _>>()?;
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", Report::HEADER);
    for nodes in sizes {
        println!("{}", runtime.block_on(simulate(nodes, SEED))?);
    }
    Ok(())
}
