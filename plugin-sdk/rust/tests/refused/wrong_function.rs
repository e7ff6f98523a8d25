use tidemill_plugin::{Message, export};

export!(fn keep);

fn keep(_message: Message<'_>) -> bool {
    true
}
