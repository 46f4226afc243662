-- name: lock
select pg_advisory_xact_lock(hashtextextended($1::text || '/' || $2 || '/' || $3, 0));

-- name: rivals
select * from fact
where tenant_id = $1 and subject = $2 and relation = $3 and valid_from <= $4 and (valid_to is null or valid_to > $4)
order by place;

-- name: supersede
update fact set valid_to = $3, ended_at = $4, superseded_by = $5,
  earlier = earlier || jsonb_build_object('until', $4::timestamptz, 'valid_to', valid_to, 'ended_at', ended_at,
    'superseded_by', superseded_by)
where tenant_id = $1 and id = any($2)
returning *;

-- name: next
select min(valid_from) from fact where tenant_id = $1 and subject = $2 and relation = $3 and valid_from > $4;

-- name: add
insert into fact (tenant_id, id, subject, relation, object, several, valid_from, valid_to, recorded_at, superseded_by, confidence,
  session_id, turn_id, agent_name, policy_version)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, '', $10, $11, $12, $13, $14)
returning *;

-- name: find
select * from fact where tenant_id = $1 and id = $2;

-- name: every
-- Each as the mesh knew it at $6: the first of what it was before that was learned to be otherwise later.
select seen.* from fact,
  jsonb_populate_record(fact, coalesce((select '{"ended_at": null, "superseded_by": ""}' || told
    from jsonb_array_elements(fact.earlier) with ordinality as all_told (told, nth)
    where (told ->> 'until')::timestamptz > $6 order by nth limit 1), '{}')) as seen
where fact.tenant_id = $1 and ($2::text = '' or fact.subject = $2) and ($3::text = '' or fact.relation = $3)
  and ($4::text = '' or fact.object = $4)
  and ($6::timestamptz is null or fact.recorded_at <= $6)
  and ($5::timestamptz is null or (seen.valid_from <= $5 and coalesce(seen.valid_to > $5, true)))
  and ($7::bigint is null or fact.place < $7)
order by fact.place desc
limit $8;

-- name: touching
select * from fact
where tenant_id = $1 and (subject = any($2) or object = any($2)) and valid_from <= $3 and (valid_to is null or valid_to > $3)
order by place
limit $4;

-- name: end
update fact set valid_to = greatest($3, valid_from), ended_at = $4,
  earlier = earlier || jsonb_build_object('until', $4::timestamptz, 'valid_to', valid_to, 'ended_at', ended_at,
    'superseded_by', superseded_by)
where tenant_id = $1 and id = $2 and ended_at is null and coalesce(valid_to > greatest($3, valid_from), true);

-- name: forget
delete from fact where tenant_id = $1 and id = any($2) returning id;

-- name: kept
select count(*) as count, min(recorded_at) as oldest from fact where tenant_id = $1 and ($2::timestamptz is null or valid_to <= $2);

-- name: outlived
-- Recorded before $2; where only those that have ended by $3 are asked for, those of which that was so and known before $2.
select * from fact
where tenant_id = $1 and case when $3::timestamptz is null then recorded_at < $2
  else valid_to <= $3 and greatest(valid_to, ended_at, recorded_at) < $2 end
order by place limit $4;

-- name: surplus
-- All but $2 of them: those that have ended by $5 first, the longest ended before the others, then those recorded first.
select * from fact where tenant_id = $1 and ($3::timestamptz is null or valid_to <= $3)
order by coalesce(valid_to <= $5, false) desc, case when valid_to <= $5 then greatest(valid_to, ended_at, recorded_at) end, place
limit least($4, greatest(0,
  (select count(*) from fact where tenant_id = $1 and ($3::timestamptz is null or valid_to <= $3)) - $2));
