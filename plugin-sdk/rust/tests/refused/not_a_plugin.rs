use tidemill_plugin::export;

struct Forgotten;

export!(Forgotten);
