-- name: add_agent
insert into agent (tenant_id, id, name, version, style, config, monitors, capabilities, state, data, request_id, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict do nothing
returning id;

-- name: agent_made_by
select data from agent where request_id = $1;

-- name: agent_versions
select data from agent where name = $1;

-- name: set_agent_state
update agent set state = $2, archived = $3, data = $4 where id = $1;

-- name: every_agent
select data from agent
where ($1::text = '' or name = $1) and ($2::text = '' or $2 = any(capabilities))
  and (($3::int = 0 and state in (1, 2)) or state = $3)
order by
  case when $4::text = 'create_time' then created_at end,
  case when $4::text = 'create_time desc' then created_at end desc,
  name, string_to_array(version, '.')::int[]
offset $5 limit $6;

-- name: start_session
insert into session (tenant_id, id, topic_start, topic_final, mode, strategy, participants, metadata, status,
  starter_subject, starter_roles, request_id, data, started_at)
values ($1, $2, $3, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
on conflict do nothing
returning id;

-- name: session_of_request
select data from session where request_id = $1;

-- name: open_lease
insert into session_lease (tenant_id, session_id) values ($1, $2);

-- name: find_session
select data from session where id = $1;

-- name: starter
select starter_subject, starter_roles from session where id = $1;

-- name: newest_sessions
select data from session
where ($1::int = 0 or status = $1) and ($2::text = '' or mode = $2)
  and ($3::timestamptz is null or (started_at, id) < ($3, $4))
order by started_at desc, id desc
limit $5;

-- name: oldest_sessions
select data from session
where ($1::int = 0 or status = $1) and ($2::text = '' or mode = $2)
  and ($3::timestamptz is null or (started_at, id) > ($3, $4))
order by started_at, id
limit $5;

-- name: turns
select data from turn
where session_id = $1 and ($2::text = '' or agent_name = $2) and ($3::int = 0 or round = $3)
order by created_at, id
offset $4 limit $5;

-- name: read_events
select sequence, kind, payload from event where session_id = $1 and sequence > $2 order by sequence limit $3;

-- name: last_mac
select mac from event where session_id = $1 and sequence = $2;

-- name: append_events
with held as (
  select 1 from session_lease
  where session_id = $2 and owner = $3 and fence = $4 and expires_at > clock_timestamp()
  for update
)
insert into event (tenant_id, session_id, sequence, kind, payload, mac)
select $1, $2, e.sequence, e.kind, e.payload, e.mac
from unnest($5::bigint[], $6::text[], $7::bytea[], $8::bytea[]) as e(sequence, kind, payload, mac)
where exists (select from held)
returning sequence;

-- name: first_event
insert into event (tenant_id, session_id, sequence, kind, payload, mac) values ($1, $2, 1, $3, $4, $5);

-- name: put_summary
update session set status = $2, topic_final = $3, converged = $4, rounds_executed = $5, ended_at = $6, data = $7
where id = $1;

-- name: add_turn
insert into turn (tenant_id, id, session_id, round, agent_name, prompt, content, confidence, raw, data, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: lock_lease
select fence from session_lease where session_id = $1 for update;

-- name: release
update session_lease set owner = null, expires_at = '-infinity', takeovers = 0,
  ready = case when $2 then false else (select count(*) from signal where session_id = $1) > $3 end
where session_id = $1;

-- name: add_signal
insert into signal (tenant_id, id, session_id, kind, sender, request_id) values ($1, $2, $3, $4, $5, $6)
on conflict do nothing
returning id;

-- name: make_ready
update session_lease set ready = true, ready_at = clock_timestamp() where session_id = $1;

-- name: notify
select pg_notify('orchestrator_wake', $1);

-- name: signalled
select exists (select from signal where session_id = $1 and request_id = $2);

-- name: signals
select id, kind, sender from signal where session_id = $1 order by created_at, id;

-- name: claim
update session_lease l
set owner = $1, fence = fence + 1, expires_at = clock_timestamp() + $2::interval,
  takeovers = takeovers + case when owner is null then 0 else 1 end
where (tenant_id, session_id) in (
  select tenant_id, session_id from session_lease
  where ready and expires_at < clock_timestamp()
  order by ready_at
  limit $3
  for update skip locked
)
returning tenant_id, session_id, owner, fence, takeovers;

-- name: renew
update session_lease set expires_at = clock_timestamp() + $2::interval
where owner = $1 and session_id = any($3::text[]) and expires_at > clock_timestamp();

-- name: give_back
update session_lease set owner = null, expires_at = '-infinity' where tenant_id = $1 and session_id = $2 and fence = $3
returning pg_notify('orchestrator_wake', session_id);
