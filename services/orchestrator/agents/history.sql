-- name: take_alone
select pg_try_advisory_xact_lock(hashtext('orchestrator.happening'));

-- name: take_happenings
select id, tenant_id, session_id, sequence, kind, copied from happening order by id limit $1;

-- name: forget_happenings
delete from happening where id = any($1::bigint[]);

-- name: context
select sequence, kind, payload from (
  select sequence, kind, payload from event
  where session_id = $1 and sequence <= $2 and kind <> 'tokens_produced'
  order by sequence desc limit $3
) last order by sequence;

-- name: contexts
select r.session as session_id, e.sequence, e.kind, e.payload
from unnest($1::text[], $2::bigint[], $3::bigint[]) as r(session, first, last)
cross join lateral (
  select sequence, kind, payload from event
  where session_id = r.session and sequence <= r.last and kind <> 'tokens_produced'
  order by sequence desc limit $4 + r.last - r.first
) e
order by r.session, e.sequence;

-- name: keep_executions
insert into agent_execution (tenant_id, id, agent_name, agent, session_id, success, reason, ended_at, latency_seconds,
  input_tokens, output_tokens, cost_micros_usd, uses_tools, data)
select $1, r.* from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::text[], $8::timestamptz[],
  $9::float8[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bool[], $14::bytea[]) as r
on conflict do nothing
returning id;

-- name: executions
select data from agent_execution
where agent_name = $1 and ($2::text = '' or agent = $2) and ($3::text = '' or session_id = $3)
  and not ($4::bool and success) and ($5::timestamptz is null or (ended_at, id) < ($5, $6))
order by ended_at desc, id desc
limit $7;

-- name: metrics
select count(*) as calls, count(*) filter (where not success) as errors,
  coalesce(percentile_cont(array[0.5, 0.95, 0.99]) within group (order by latency_seconds), array[0, 0, 0]) as latency,
  coalesce(sum(input_tokens), 0)::bigint as input_tokens, coalesce(sum(output_tokens), 0)::bigint as output_tokens,
  coalesce(sum(cost_micros_usd), 0)::bigint as cost_micros_usd
from agent_execution
where agent_name = $1 and ($2::text = '' or agent = $2) and ended_at >= $3 and ended_at < $4;

-- name: errors_by_reason
select reason, count(*) as times from agent_execution
where agent_name = $1 and ($2::text = '' or agent = $2) and ended_at >= $3 and ended_at < $4 and not success
group by reason;

-- name: executions_with_tools
select data from agent_execution
where agent_name = $1 and ($2::text = '' or agent = $2) and ended_at >= $3 and ended_at < $4 and uses_tools
order by ended_at desc
limit 5000;

-- name: evidence_to_change
select agent_name, source, positive, negative, count, updated_at from agent_evidence
where agent_name = any($1::text[]) for update;

-- name: set_evidence
insert into agent_evidence (tenant_id, agent_name, source, positive, negative, count, updated_at)
select $1, r.* from unnest($2::text[], $3::text[], $4::float8[], $5::float8[], $6::bigint[], $7::timestamptz[]) as r
on conflict (tenant_id, agent_name, source) do update
set positive = excluded.positive, negative = excluded.negative, count = excluded.count, updated_at = excluded.updated_at;

-- name: lock_evidence
select pg_advisory_xact_lock(hashtextextended('evidence/' || $1 || '/' || agent, 0)) from unnest($2::text[]) as agent;

-- name: evidence
select agent_name, source, positive, negative, count, updated_at from agent_evidence where agent_name = any($1::text[]);

-- name: rate
insert into agent_rating (tenant_id, id, agent_name, source, score, weight, subject, note, rater, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict do nothing
returning id;

-- name: keep_trees
insert into reasoning_tree (tenant_id, turn_id, session_id, ended_at, data)
select $1, r.* from unnest($2::text[], $3::text[], $4::timestamptz[], $5::bytea[]) as r
on conflict do nothing;

-- name: trees
select data from reasoning_tree where session_id = $1 order by ended_at desc, turn_id desc limit $2;
