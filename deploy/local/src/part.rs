//! The names of what the stack consists of.

use std::fmt;
use std::str::FromStr;

use crate::error::StackError;

/// A process of the stack, or the relay or the sealer, which run inside the command services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// `postgres_primary`
    Primary,
    /// `postgres_replica`, `postgres_replica_2`, …: numbered from 1.
    Replica(u8),
    /// `nats`
    Nats,
    /// `command_service`, `command_service_2`, …: numbered from 1.
    CommandService(u8),
    /// `projector`
    Projector,
    /// `query_service`
    QueryService,
    /// `relay`: no process of its own. Stopping it starts the command services again without their relay.
    Relay,
    /// `sealer`: likewise.
    Sealer,
}

impl Part {
    /// The name as in `pids.json` and in `local-stack stop NAME`.
    pub fn name(self) -> String {
        match self {
            Self::Primary => "postgres_primary".to_owned(),
            Self::Replica(number) => numbered("postgres_replica", number),
            Self::Nats => "nats".to_owned(),
            Self::CommandService(number) => numbered("command_service", number),
            Self::Projector => "projector".to_owned(),
            Self::QueryService => "query_service".to_owned(),
            Self::Relay => "relay".to_owned(),
            Self::Sealer => "sealer".to_owned(),
        }
    }

    /// Whether it is a PostgreSQL server.
    pub(crate) fn is_server(self) -> bool {
        matches!(self, Self::Primary | Self::Replica(_))
    }

    /// Whether it has no process of its own but runs inside the command services.
    pub(crate) fn is_inside(self) -> bool {
        matches!(self, Self::Relay | Self::Sealer)
    }

    /// The binary of ours that runs this part, where one does.
    pub(crate) fn binary(self) -> Option<&'static str> {
        match self {
            Self::CommandService(_) => Some("command-service"),
            Self::Projector => Some("projector"),
            Self::QueryService => Some("query-service"),
            Self::Primary | Self::Replica(_) | Self::Nats | Self::Relay | Self::Sealer => None,
        }
    }
}

fn numbered(name: &str, number: u8) -> String {
    if number == 1 { name.to_owned() } else { format!("{name}_{number}") }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name().replace('_', "-"))
    }
}

impl FromStr for Part {
    type Err = StackError;

    /// Takes the names with `_` or `-`; `postgres` is the primary, `replica` the first replica.
    fn from_str(text: &str) -> Result<Self, StackError> {
        let name = text.trim().replace('-', "_");
        let number = |prefix: &str| -> Option<u8> {
            let rest = name.strip_prefix(prefix)?;
            if rest.is_empty() {
                return Some(1);
            }
            rest.strip_prefix('_')?.parse().ok().filter(|number| *number >= 2)
        };
        match name.as_str() {
            "postgres" | "primary" | "postgres_primary" => return Ok(Self::Primary),
            "nats" => return Ok(Self::Nats),
            "projector" => return Ok(Self::Projector),
            "query_service" => return Ok(Self::QueryService),
            "relay" => return Ok(Self::Relay),
            "sealer" => return Ok(Self::Sealer),
            _ => {}
        }
        if let Some(number) = number("postgres_replica").or_else(|| number("replica")) {
            return Ok(Self::Replica(number));
        }
        if let Some(number) = number("command_service") {
            return Ok(Self::CommandService(number));
        }
        Err(StackError::Order(format!(
            "there is no part `{text}`: postgres_primary, postgres_replica, nats, command_service, projector, \
             query_service, relay or sealer"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_in_both_spellings() {
        for part in [
            Part::Primary,
            Part::Replica(1),
            Part::Replica(3),
            Part::Nats,
            Part::CommandService(1),
            Part::CommandService(2),
            Part::Projector,
            Part::QueryService,
            Part::Relay,
            Part::Sealer,
        ] {
            assert_eq!(part.name().parse::<Part>().unwrap(), part);
            assert_eq!(part.to_string().parse::<Part>().unwrap(), part);
        }
        for wrong in ["", "postgres_replica_0", "command_service_x", "command_service2", "zookeeper"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
    }
}
