//! Stopping the built binary.

use crate::process::{Gateway, Upstream};

#[test]
fn a_gateway_stopped_as_soon_as_it_is_ready_ends_in_order() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    for _ in 0..5 {
        let gateway = Gateway::start(folder.path(), &upstream);
        assert_eq!(gateway.stop(), Some(0));
    }
}
