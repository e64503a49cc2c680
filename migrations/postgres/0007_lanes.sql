-- Which lanes people have paused and let go on again; the last row of a lane says how it is. Never changed.
create table lane_changes (
    seq       bigint      generated always as identity primary key,
    lane      text        collate "C" not null,
    is_paused boolean     not null,
    by        text        not null,
    why       text        not null,
    at        timestamptz not null
);
create index lane_changes_lane on lane_changes (lane, seq desc);

-- Numbers, by their keyed hash, that a provider refuses since they were recharged a moment ago. Taken before a claim, by the
-- order that is to be sent; removed some time after.
create table cooldowns (
    provider   text        collate "C" not null,
    phone_hash text        collate "C" not null,
    order_id   text        collate "C" not null,
    until      timestamptz not null,
    primary key (provider, phone_hash)
) with (fillfactor = 70);
create index cooldowns_until on cooldowns (until);
