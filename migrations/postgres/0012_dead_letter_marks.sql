-- What people decided about dead letters, which stand in Kafka alone. Of each, the record that it is of, by where that one
-- stood; its timestamp (-1 for none) tells two lives of a topic apart.
create table dead_letter_marks (
    topic         text        collate "C" not null,
    partition     integer     not null,
    record_offset bigint      not null,
    stamp         bigint      not null,
    state         text        not null check (state in ('replaying', 'replayed', 'discarded')),
    by            text        not null,
    why           text        not null,
    at            timestamptz not null,
    run           uuid        not null,
    primary key (topic, partition, record_offset, stamp)
);
