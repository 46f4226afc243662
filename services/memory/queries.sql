-- name: add_1536
insert into memory_episode (tenant_id, id, agent_name, embedding, content, content_hash, memory_type, session_id, turn_id,
  tags, metadata, importance, created_at, expires_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
on conflict do nothing
returning id;

-- name: add_384
insert into memory_episode_384 (tenant_id, id, agent_name, embedding, content, content_hash, memory_type, session_id,
  turn_id, tags, metadata, importance, created_at, expires_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
on conflict do nothing
returning id;

-- name: same
select * from memory where agent_name = $1 and memory_type = $2 and content_hash = $3;

-- name: find
select * from memory where id = $1 and (expires_at is null or expires_at > $2);

-- name: forget
with wide as (delete from memory_episode where id = $1 returning id),
  narrow as (delete from memory_episode_384 where id = $1 returning id)
select id from wide union all select id from narrow;

-- name: newest
select * from memory
where (expires_at is null or expires_at > $1) and ($2::text = '' or agent_name in ('', $2))
  and (cardinality($3::text[]) = 0 or memory_type = any($3)) and tags @> $4::text[]
  and ($5::timestamptz is null or (created_at, id) < ($5, $6))
order by created_at desc, id desc
limit $7;

-- name: oldest
select * from memory
where (expires_at is null or expires_at > $1) and ($2::text = '' or agent_name in ('', $2))
  and (cardinality($3::text[]) = 0 or memory_type = any($3)) and tags @> $4::text[]
  and ($5::timestamptz is null or (created_at, id) > ($5, $6))
order by created_at, id
limit $7;

-- name: search_settings
select set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', '100', true);

-- name: nearest_1536
select *, 1 - (embedding <=> $1) as score from memory_episode
where (expires_at is null or expires_at > $2) and ($3::text = '' or agent_name in ('', $3))
  and (cardinality($4::text[]) = 0 or memory_type = any($4)) and tags @> $5::text[]
  and ($6::timestamptz is null or created_at >= $6) and ($7::timestamptz is null or created_at < $7)
  and ($8::text = '' or session_id <> $8)
order by embedding <=> $1
limit $9;

-- name: nearest_384
select *, 1 - (embedding <=> $1) as score from memory_episode_384
where (expires_at is null or expires_at > $2) and ($3::text = '' or agent_name in ('', $3))
  and (cardinality($4::text[]) = 0 or memory_type = any($4)) and tags @> $5::text[]
  and ($6::timestamptz is null or created_at >= $6) and ($7::timestamptz is null or created_at < $7)
  and ($8::text = '' or session_id <> $8)
order by embedding <=> $1
limit $9;

-- name: append_turn
insert into short_term_turn (tenant_id, session_id, turn_id, agent_name, content, created_at)
values ($1, $2, $3, $4, $5, $6)
on conflict do nothing;

-- name: trim_turns
delete from short_term_turn where session_id = $1 and place <= (
  select place from short_term_turn where session_id = $1 order by place desc offset $2 limit 1);

-- name: count_turns
select count(*) from short_term_turn where session_id = $1;

-- name: tail
select turn_id, agent_name as agent, content from (
  select * from short_term_turn where session_id = $1 order by place desc limit $2) as last
order by place;
