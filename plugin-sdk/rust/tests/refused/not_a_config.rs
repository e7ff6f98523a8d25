use tidemill_plugin::{Description, Message, Out, Plugin, Result};

struct Config;

struct Filter;

impl Plugin for Filter {
    type Config = Config;

    fn new(_: Config, _: &mut Description) -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, _: Message<'_>, _: &mut Out<'_>) -> Result {
        Ok(())
    }
}

tidemill_plugin::export!(Filter);
