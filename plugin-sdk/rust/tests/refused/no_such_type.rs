tidemill_plugin::export!(Missing);
