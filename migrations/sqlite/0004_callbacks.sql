-- What providers told of their own accord, and what became of it, as in Postgres.
create table callbacks (
    order_id text    not null,
    attempt  integer not null check (attempt >= 1),
    provider text    not null,
    said     text    not null,
    became   text    not null check (became in ('settled', 'asked', 'confirming', 'known')),
    at       integer not null,
    primary key (order_id, attempt, provider, said)
) strict, without rowid;
