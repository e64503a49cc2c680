-- Which lanes people have paused, as in Postgres.
create table lane_changes (
    seq       integer primary key,
    lane      text    not null,
    is_paused integer not null,
    by        text    not null,
    why       text    not null,
    at        integer not null
) strict;
create index lane_changes_lane on lane_changes (lane, seq desc);

-- Numbers that cool down, as in Postgres.
create table cooldowns (
    provider   text    not null,
    phone_hash text    not null,
    order_id   text    not null,
    until      integer not null,
    primary key (provider, phone_hash)
) strict, without rowid;
create index cooldowns_until on cooldowns (until);
