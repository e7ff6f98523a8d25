//! Forwards every message: the floor of every benchmark.

use tidemill_plugin::{Message, Out, Result, export};

export!(fn forward);

fn forward(_message: Message<'_>, out: &mut Out<'_>) -> Result {
    out.forward();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::testing::{Function, Harness};

    #[test]
    fn every_message_goes_on_and_no_byte_crosses_back() {
        let mut plugin = Harness::<Function>::function(forward);
        let processed = plugin.process(["{}", "", "not JSON"]);
        assert!(processed.forwarded_all);
        assert_eq!(processed.texts(), ["{}", "", "not JSON"]);
    }
}
