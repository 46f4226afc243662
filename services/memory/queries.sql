-- Fragments that other queries name: `:columns`, `:fits`; `:table`, `:near` and `:wide` are those of a width of vectors, `:part` is the
-- tenant's partition, `:every` what it keeps in all widths, with the cosine to the vector of `sought` where that is of the same model.

-- name: columns
id, content, content_hash, memory_type, agent_name, session_id, turn_id, tags, metadata, importance, created_at, expires_at, updated_at,
  policy_version, embedding_model, embedding_set, place

-- name: fits
tenant_id = $1 and (expires_at is null or expires_at > $2) and (cardinality($3::text[]) = 0 or agent_name = any($3))
  and (cardinality($4::text[]) = 0 or memory_type = any($4)) and (cardinality($5::text[]) = 0 or tags @> $5)
  and ($6::timestamptz is null or created_at >= $6) and ($7::timestamptz is null or created_at < $7)
  and ($8::text = '' or session_id = $8) and ($9::text = '' or session_id <> $9)
  and ($10::timestamptz is null or created_at <= $10) and ($11::float8 = 0 or importance >= $11)
  and ($12::text = '' or turn_id = $12) and ($13::text = '' or policy_version = $13)
  and ($14::jsonb = '{}' or not exists (
    select from jsonb_each_text($14) as wanted where metadata ->> wanted.key is distinct from wanted.value))
  and embedding_set = $15

-- name: every
(select tenant_id, :columns, :of_384 as cosine from memory_episode_384_:part
  union all select tenant_id, :columns, :of_1536 from memory_episode_:part
  union all select tenant_id, :columns, :of_any from memory_episode_any_:part)

-- name: all
(select tenant_id, :columns from memory_episode_384_:part
  union all select tenant_id, :columns from memory_episode_:part
  union all select tenant_id, :columns from memory_episode_any_:part)

-- name: cosine
case when :wide and ((select model from sought) in ('', embedding_model) or embedding_model = '')
  then 1 - (:near <=> (select vector from sought)) end

-- name: add
-- One statement a batch: planning it costs as much as storing a hundred. What is there in a table of another width is there.
insert into :table (tenant_id, place, id, agent_name, embedding, embedding_model, embedding_set, content, content_hash,
  memory_type, session_id, turn_id, tags, metadata, importance, policy_version, created_at, updated_at, expires_at)
select $1, coalesce(given.place, nextval('memory_place')), given.id, given.agent_name, given.embedding, given.embedding_model,
  given.embedding_set, given.content, given.content_hash, given.memory_type, given.session_id, given.turn_id,
  array(select jsonb_array_elements_text(given.tags::jsonb)), given.metadata, given.importance, given.policy_version, given.created_at,
  given.updated_at, given.expires_at
from unnest($2::bigint[], $3::text[], $4::text[], $5::halfvec[], $6::text[], $7::text[], $8::text[], $9::bytea[], $10::text[],
    $11::text[], $12::text[], $13::text[], $14::jsonb[], $15::float8[], $16::text[], $17::timestamptz[], $18::timestamptz[],
    $19::timestamptz[])
  as given (place, id, agent_name, embedding, embedding_model, embedding_set, content, content_hash, memory_type, session_id,
    turn_id, tags, metadata, importance, policy_version, created_at, updated_at, expires_at)
where not exists (select from memory where tenant_id = $1 and memory.embedding_set = given.embedding_set
  and memory.agent_name = given.agent_name and memory.memory_type = given.memory_type
  and memory.content_hash = given.content_hash)
on conflict do nothing
returning id, place;

-- name: same
select memory.* from memory
join unnest($2::text[], $3::text[], $4::text[], $5::bytea[]) as wanted (embedding_set, agent_name, memory_type, content_hash)
  using (embedding_set, agent_name, memory_type, content_hash)
where tenant_id = $1;

-- name: add_words
-- A new place has no words yet. To look for some before each entry takes twice the time of all.
insert into memory_word (tenant_id, word, place, times, length)
select $1, cut.word, given.place, cut.times, given.length
from unnest($2::bigint[], $3::smallint[], $4::text[], $5::text[]) as given (place, length, words, times),
  unnest(given.words::text[], given.times::smallint[]) as cut (word, times)
order by cut.word collate "C", given.place;

-- name: renew_words
-- What was cut by other rules once may still be there.
insert into memory_word (tenant_id, word, place, times, length)
select $1, cut.word, given.place, cut.times, given.length
from unnest($2::bigint[], $3::smallint[], $4::text[], $5::text[]) as given (place, length, words, times),
  unnest(given.words::text[], given.times::smallint[]) as cut (word, times)
order by cut.word collate "C", given.place
on conflict do nothing;

-- name: count
insert into memory_count (tenant_id, memory_type, memories, characters, words)
values ($1, $2, $3, $4, $5)
on conflict (tenant_id, memory_type) do update set memories = memory_count.memories + excluded.memories,
  characters = memory_count.characters + excluded.characters, words = memory_count.words + excluded.words;

-- name: find
select * from memory where tenant_id = $1 and id = $2 and (expires_at is null or expires_at > $3);

-- name: vector
select embedding::real[] as embedding from memory_episode_384 where tenant_id = $1 and id = $2
union all select embedding::real[] from memory_episode where tenant_id = $1 and id = $2
union all select embedding::real[] from memory_episode_any where tenant_id = $1 and id = $2;

-- name: forget_use
delete from memory_use where tenant_id = $1 and place = any($2::bigint[]);

-- name: add_tokens
insert into memory_tokens (tenant_id, place, model, tokens)
select $1, place, model, tokens from unnest($2::bigint[], $3::text[], $4::bytea[]) as given (place, model, tokens);

-- name: tokens_of
select tokens from memory_tokens join memory using (tenant_id, place) where tenant_id = $1 and id = $2;

-- name: delete_words
delete from memory_word using unnest($2::text[], $3::bigint[]) as cut (word, place)
where memory_word.tenant_id = $1 and memory_word.word = cut.word and memory_word.place = cut.place;

-- name: delete_moved_words
-- Memories moved by a migration have the words of the dictionary.
delete from memory_word using (
  select unnest(tsvector_to_array(to_tsvector('english', content))) as word, place
  from unnest($2::text[], $3::bigint[]) as gone (content, place)) as cut
where memory_word.tenant_id = $1 and memory_word.word = cut.word and memory_word.place = cut.place;

-- name: newest
select :columns
from memory
where :fits
  and ($16::timestamptz is null or (created_at, id) < ($16, $17))
order by created_at desc, id desc
limit $18;

-- name: oldest
select :columns
from memory
where :fits
  and ($16::timestamptz is null or (created_at, id) > ($16, $17))
order by created_at, id
limit $18;

-- name: searching
-- Generic plans name one partition each and are made once a connection: planning for every search cost more than searching.
-- Without an iterative scan a filter can leave nothing of what the graph found; in strict order it drops what a later part of the walk
-- finds nearer, so all is sorted at the end. A planner without statistics would compare all.
-- The larger the graph, the wider the walk that finds as much of the exact answer: 100 up to 100,000 memories, 600 at a million.
select set_config('app.tenant', $1, true), set_config('plan_cache_mode', 'force_generic_plan', true),
  set_config('hnsw.iterative_scan', 'relaxed_order', true),
  set_config('enable_sort', 'off', true), set_config('enable_seqscan', 'off', true),
  set_config('hnsw.ef_search', (select least(greatest(500 * log(greatest(sum(memories), 1)) - 2400, 100), 800)::integer::text
    from memory_count where tenant_id = $1), true);

-- name: searching_all
-- What a filter leaves is compared by the index that suits the filter.
select set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'on', true);

-- name: searching_once
select set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true);

-- name: partition
select part from generate_series(0, 15) as part where satisfies_hash_partition('memory_word'::regclass, 16, part, $1::text);

-- name: nearest
-- Who has nothing in the graph does not walk it: others' memories may be all that is there. Under a filter the walk ends with the last
-- one wanted, and a few more make up for what lay off its way.
with known as materialized (
  select exists (select from :table_:part where tenant_id = $1 and in_graph and :wide) as graphed)
select found.*, (select graphed from known) as graphed from (
  (select :columns, 1 - (:near <=> $16) as cosine, in_graph from :table_:part
    where (select graphed from known) and in_graph and :wide and :fits and ($18::text = '' or embedding_model in ('', $18))
    order by :near <=> $16 limit greatest($17, 20))
  union all
  (select :columns, 1 - distance as cosine, in_graph from (
      -- The offset keeps the distance from being computed twice.
      select *, :near <=> $16 as distance from :table_:part
      where not in_graph and :wide and :fits and ($18::text = '' or embedding_model in ('', $18)) offset 0) as fresh
    order by distance limit $17)
) as found;

-- name: exact
select :columns, 1 - (:near <=> $16) as cosine from :table_:part
where :wide and :fits
  and ($18::text = '' or embedding_model in ('', $18))
order by (:near <=> $16) + 0
limit $17;

-- name: rarest_tag
-- Of the tags that at most $3 memories have.
with counted as materialized (
  select word, (select count(*) from (select from memory_word_:part as held
    where held.tenant_id = $1 and held.word = asked.word limit $3 + 1) as first) as holding
  from unnest($2::text[]) as asked (word))
select word from counted where holding <= $3 order by holding limit 1;

-- name: tagged
select :columns, 1 - (:near <=> $16) as cosine from :table_:part
where place = any(array(select held.place from memory_word_:part as held where held.tenant_id = $1 and held.word = $19))
  and :wide and :fits and ($18::text = '' or embedding_model in ('', $18))
order by (:near <=> $16) + 0
limit $17;

-- name: given
select place, session_id, created_at, 1 - (:near <=> $16) as cosine, in_graph, true as graphed from :table_:part
where tenant_id = $1 and place = any($23::bigint[]);

-- name: worded
-- How many memories hold each word ($17; counted up to $19 unless $18 knows), and the first $16 that fit of the first $21 by BM25
-- of the rarest words whose entries are at most $20; of a word that alone has more, the newest.
with counted as materialized (
    select word, nth, coalesce(known, (select count(*) from (select from memory_word_:part as held
      where held.tenant_id = $1 and held.word = asked.word limit $19) as first)) as holding
    from unnest($17::text[], $18::bigint[]) with ordinality as asked (word, known, nth)),
  kept as materialized (
    select coalesce(sum(memories), 0)::bigint as memories, coalesce(sum(words), 0)::bigint as words
    from memory_count where tenant_id = $1),
  affordable as materialized (
    select word, 2.2 * ln(1 + (greatest(memories, holding) - holding + 0.5::float8) / (holding + 0.5::float8)) as weight,
      0.9 / greatest(words / nullif(memories, 0)::float8, 1) as longer, sum(holding) over rarest as entries,
      row_number() over rarest as nth
    from counted, kept where holding > 0 window rarest as (order by holding, word collate "C")),
  scored as materialized (
    select place, sum(weight * times / (times + (0.3::float8 + longer * length))) as score
    from affordable,
      -- Each word is looked up by itself, whatever the planner knows of the table.
      lateral (select place, times, length from memory_word_:part as held
        where held.tenant_id = $1 and held.word = affordable.word order by place desc limit $20) as held
    where entries <= $20 or nth = 1
    group by place order by score desc, place limit $21),
  best as materialized (select array(select place from scored) as places)
select memories, words, array(select holding from counted order by nth) as holding,
  (select max(entries) from affordable where entries <= $20 or affordable.nth = 1)::bigint as entries,
  array(select place from :all as every where :fits and place = any((select places from best)::bigint[])
    order by array_position((select places from best), place) limit $16) as places
from kept;

-- name: gather
-- What is near, what the words found ($19), and what stands around the first $21 of both ($20 on each side), each memory once, with
-- the vectors of its tokens if $22 and whether it fits: what the words found may have changed since. The first row tells in which lists it is, and is there if nothing is found.
with sought as materialized (select $16::halfvec as vector, $18::text as model),
  walked as materialized (:walked),
  near as materialized (select *, row_number() over (order by cosine desc) as nth from walked order by cosine desc limit $17),
  chosen as materialized (
    select place, session_id, created_at, min(nth) as nth from (
      select place, session_id, created_at, nth from near where nth <= $21
      union all select place, session_id, created_at, $17 + array_position($19::bigint[], place) from :all as every
        where tenant_id = $1 and place = any(($19::bigint[])[1:$21])) as first
    where session_id <> '' group by place, session_id, created_at),
  beside as materialized (
    select chosen.place as beside, chosen.nth, side.distance, side.place
    from chosen, lateral (
      (select -row_number() over (order by created_at desc, place desc) as distance, earlier.place from (
        select place, created_at from :all as every where tenant_id = $1 and every.session_id = chosen.session_id
          and embedding_set = '' and every.session_id <> '' and (every.created_at, every.place) < (chosen.created_at, chosen.place)
          and (expires_at is null or expires_at > $2)
        order by created_at desc, every.place desc limit $20) as earlier)
      union all
      (select row_number() over (order by created_at, place) as distance, later.place from (
        select place, created_at from :all as every where tenant_id = $1 and every.session_id = chosen.session_id
          and embedding_set = '' and every.session_id <> '' and (every.created_at, every.place) > (chosen.created_at, chosen.place)
          and (expires_at is null or expires_at > $2)
        order by created_at, every.place limit $20) as later)) as side),
  wanted as materialized (
    select array(select place from near union select unnest($19::bigint[]) union select place from beside) as places),
  told as (
    select array(select place from near order by nth) as near, (select coalesce(bool_or(graphed), false) from walked) as graphed,
      (select count(*) from walked where in_graph) as walked, lines.*
    from (select array_agg(beside order by distance, nth) as besides, array_agg(distance order by distance, nth) as distances,
      array_agg(place order by distance, nth) as neighbours from beside) as lines)
select shown.*, told.* from (select true) as always
left join (
  select :columns, cosine,
    case when $22 then (select known.tokens from memory_tokens_:part as known
      where known.tenant_id = $1 and known.place = every.place and known.model = $18) end as tokens,
    (:fits) as fitting,
    row_number() over () as nth
  from :every as every where tenant_id = $1 and place = any((select places from wanted)::bigint[])) as shown on true
left join told on coalesce(shown.nth, 1) = 1;

-- name: similar_words
with recursive known as (
  (select word from memory_word where tenant_id = $1 and word >= $2 and word < $3 order by word limit 1)
  union all
  select (select word from memory_word where tenant_id = $1 and memory_word.word > known.word and word < $3
    order by word limit 1) from known where known.word is not null)
select word from known where word is not null limit 500;

-- name: usage
select memory_type, coalesce(memories, 0) as memories, coalesce(characters, 0) as characters,
  coalesce(max_memories, 0) as max_memories, coalesce(max_days, 0) as max_days,
  (select min(created_at) from memory where memory.tenant_id = $1 and memory.memory_type = kept.memory_type) as oldest
from (select * from memory_count where tenant_id = $1) as kept
full join (select * from memory_retention where tenant_id = $1 and memory_type in ('episodic', 'semantic', 'long_term')) as bound
  using (memory_type)
order by memory_type;

-- name: bounds
select memory_type as kind, max_memories as at_most, max_days as days from memory_retention
where tenant_id = $1 and memory_type = any($2::text[]);

-- name: set_retention
insert into memory_retention (tenant_id, memory_type, max_memories, max_days) values ($1, $2, $3, $4)
on conflict (tenant_id, memory_type) do update set max_memories = excluded.max_memories, max_days = excluded.max_days;

-- name: ended
select * from memory where tenant_id = $1 and expires_at <= $2 order by expires_at limit $3;

-- name: least
select memory.* from memory left join memory_use using (tenant_id, place)
where tenant_id = $1 and memory_type = $2 and embedding_set = ''
order by importance, coalesce(recalled_at, created_at), place
limit $3;

-- name: tenants
select memory_tenants() as tenant;

-- name: used
-- What was forgotten meanwhile is not noted.
insert into memory_use (tenant_id, place, recalled_at, times)
select $1, place, $3, 1 from unnest($2::bigint[]) as found (place)
where exists (select from memory where memory.tenant_id = $1 and memory.place = found.place)
on conflict (tenant_id, place) do update set recalled_at = excluded.recalled_at, times = memory_use.times + 1;

-- name: append_turns
insert into short_term_turn (tenant_id, session_id, turn_id, agent_name, content, created_at)
select $1, said.session_id, said.turn_id, said.agent_name, said.content, $2
from unnest($3::text[], $4::text[], $5::text[], $6::text[]) with ordinality
  as said (session_id, turn_id, agent_name, content, place)
order by said.place
on conflict do nothing;

-- name: count_turns
select session_id, count(*) as turns from short_term_turn where tenant_id = $1 and session_id = any($2) group by session_id;

-- name: tail
select turn_id, agent_name as agent, content, created_at from (
  select * from short_term_turn where tenant_id = $1 and session_id = $2 order by place desc limit $3) as last
order by place;

-- name: conversation
select summary, summarized_turns from conversation where tenant_id = $1 and session_id = $2;

-- name: fold
insert into conversation (tenant_id, session_id, summary, summarized_turns) values ($1, $2, $3, $4)
on conflict (tenant_id, session_id) do update set summary = excluded.summary, summarized_turns = excluded.summarized_turns
where conversation.summarized_turns = $5
returning summarized_turns;

-- name: delete_turns
delete from short_term_turn where tenant_id = $1 and session_id = $2 and turn_id = any($3);

-- name: into_graph
-- As an array the choice is made once: as a subquery it may be made anew for each row, and all go in one transaction.
update :table set in_graph = true
where tenant_id = $1 and not in_graph and place = any(array(
  select place from :table where tenant_id = $1 and not in_graph and :wide order by place limit $2 for update skip locked));

-- name: not_in_graph
select count(*) from (select from :table where tenant_id = $1 and not in_graph and :wide limit $2) as counted;

-- name: analyze
select analyze_memories();

-- name: forget_conversation
with turns as (delete from short_term_turn where tenant_id = $1 and session_id = $2)
delete from conversation where tenant_id = $1 and session_id = $2;

-- name: count_conversations
select count(distinct session_id) as count, min(created_at) as oldest from short_term_turn where tenant_id = $1;

-- name: silent_conversations
-- Those without a turn since $2. An old turn of a session that goes on is one of the fifty its ring holds.
select distinct session_id from short_term_turn as old
where tenant_id = $1 and created_at < $2 and not exists (
  select from short_term_turn as newer where newer.tenant_id = $1 and newer.session_id = old.session_id and newer.created_at >= $2)
limit $3;

-- name: surplus_conversations
select session_id from (
  select session_id, max(place) as last from short_term_turn where tenant_id = $1 group by session_id order by last desc offset $2
) as surplus
order by last limit $3;

-- name: newest_turn
select turn_id from short_term_turn where tenant_id = $1 and session_id = $2 order by place desc limit 1;
