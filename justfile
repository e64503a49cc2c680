# Short names for what scripts/ and cargo do; nothing here does work of its own.

# The recipes
default:
    @just --list

# Everything that must pass before a change lands
test *args:
    scripts/test {{args}}

# The service at work, from order to recharge
demo *args:
    cargo run --release -- demo {{args}}

# Kafka and Postgres for tests: just services up|down|status|env|...
services *args:
    scripts/services {{args}}

fmt:
    cargo fmt --all

lint:
    cargo fmt --all --check
    cargo clippy --all-targets --locked --features failpoints -- -D warnings

bench *args:
    scripts/bench {{args}}
