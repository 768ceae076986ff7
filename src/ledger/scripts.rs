//! The registry of Lua scripts: joined from `lua/` at compile time, called by their SHA-1.
//!
//! EVALSHA and not FUNCTION: each version of the service brings its own scripts, and two versions never fight over
//! one name (`docs/adr/0003`).

use std::sync::LazyLock;

/// One script as Redis gets it.
pub struct Script {
    pub name: &'static str,
    pub source: &'static str,
    handle: LazyLock<redis::Script>,
}

impl Script {
    /// Hex SHA-1 of the source, by which EVALSHA knows it.
    pub fn sha(&self) -> &str {
        self.handle.get_hash()
    }
}

macro_rules! scripts {
    ($($name:ident, $text:literal, $flags:literal: $($file:literal)+;)+) => {
        $(
            pub static $name: Script = {
                const SOURCE: &str = concat!(
                    "#!lua flags=", $flags, "\n",
                    $(include_str!(concat!("../../lua/", $file, ".lua")), "\n",)+
                );
                Script { name: $text, source: SOURCE, handle: LazyLock::new(|| redis::Script::new(SOURCE)) }
            };
        )+

        /// Every script, to be loaded on every new connection.
        pub fn all() -> [&'static Script; [$($text),+].len()] {
            [$(&$name),+]
        }
    };
}

scripts! {
    APPLY, "apply", "allow-oom":
        "shared/names" "apply/begin" "shared/head" "shared/budget" "shared/record" "apply/operation" "apply/write"
        "apply/verbs" "apply/reserve" "apply/settle" "apply/debit" "apply/expire" "apply/release" "apply/extend"
        "apply/run";
    DUE, "due", "no-writes": "shared/head" "due";
    OUTBOX, "outbox", "no-writes": "outbox";
    ACK, "ack", "allow-oom": "shared/names" "shared/record" "ack";
    SYNC, "sync", "allow-oom": "shared/names" "shared/head" "shared/budget" "sync";
    LOAD, "load", "allow-oom": "shared/names" "shared/head" "shared/budget" "load";
    PEEK, "peek", "no-writes": "shared/names" "shared/head" "shared/budget" "peek";
    FENCE, "fence", "allow-oom": "fence";
    CARRY, "carry", "allow-oom": "shared/names" "shared/head" "shared/budget" "shared/record" "carry";
    OPEN, "open", "allow-oom": "shared/head" "open";
}
