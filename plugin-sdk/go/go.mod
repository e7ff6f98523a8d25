module tidemill.dev/plugin

go 1.26
