-- What providers told of their own accord, and what became of it: each is dealt with once, and people see what was said.
-- The key is also how those of one order are found.
create table callbacks (
    order_id text        collate "C" not null,
    attempt  integer     not null check (attempt >= 1),
    provider text        collate "C" not null,
    said     text        collate "C" not null, -- in words of ours
    became   text        not null check (became in ('settled', 'asked', 'confirming', 'known')),
    at       timestamptz not null,
    primary key (order_id, attempt, provider, said)
);
