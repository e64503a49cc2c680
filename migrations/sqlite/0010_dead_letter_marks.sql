-- What people decided about dead letters, as in Postgres.
create table dead_letter_marks (
    topic         text    not null,
    partition     integer not null,
    record_offset integer not null,
    stamp         integer not null,
    state         text    not null check (state in ('replaying', 'replayed', 'discarded')),
    by            text    not null,
    why           text    not null,
    at            integer not null,
    run           text    not null,
    primary key (topic, partition, record_offset, stamp)
) strict, without rowid;
