-- A provider's quota, counted in one place for the whole fleet: one row a provider. Times are
-- nanoseconds of the database's clock since 1970; a cell holds the moment at which the permits
-- given so far are paid off (the theoretical arrival time of the generic cell rate algorithm).
create table quota_cells (
    provider              text    collate "C" primary key,
    tat_ns                bigint  not null default 0,
    fresh_tat_ns          bigint  not null default 0,
    retry_tat_ns          bigint  not null default 0,
    query_tat_ns          bigint  not null default 0,
    fresh_active_until_ns bigint  not null default 0,
    retry_active_until_ns bigint  not null default 0,
    query_active_until_ns bigint  not null default 0,
    paused_until_ns       bigint  not null default 0
);
