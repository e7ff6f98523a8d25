module guest

go 1.26

require tidemill.dev/plugin v0.0.0

replace tidemill.dev/plugin => ../../../../plugin-sdk/go
