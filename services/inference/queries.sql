-- name: finish
select finish_generations($1, $2);

-- name: find
select * from find_generation($1, $2);
