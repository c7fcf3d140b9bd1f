//! Serializes an [`Address`] as its string, for configuration files and messages (feature `serde`).

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use super::Address;

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Address;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as unix:/run/app.sock or 127.0.0.1:50051")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use crate::address::Address;

    #[test]
    fn an_address_is_its_string() {
        let addresses: Vec<Address> =
            serde_json::from_str(r#"["unix:///run/a%20b", "[::1]:1"]"#).unwrap();
        assert_eq!(addresses[0], Address::unix("/run/a b").unwrap());
        let json = serde_json::to_string(&addresses).unwrap();
        assert_eq!(json, r#"["unix:/run/a%20b","[::1]:1"]"#);
        let error = serde_json::from_str::<Address>(r#""/run/app""#).unwrap_err().to_string();
        assert!(error.contains("write unix:/run/app"), "{error}");
    }
}
